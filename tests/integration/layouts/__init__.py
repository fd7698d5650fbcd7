"""Generated competitions: one generator each, in modules by what is answered."""

from collections.abc import Callable
from pathlib import Path

from tests.integration.layouts import (
    containers,
    individuals,
    many_labels,
    medical,
    one_class,
    some_numbers,
    two_classes,
)
from tests.integration.layouts.layout import Layout, Metric

__all__ = ["LAYOUTS", "Layout", "Metric"]

# By the name of the config; the slug on Kaggle is that of the layout.
LAYOUTS: dict[str, Callable[[Path, int], Layout]] = {
    make.__name__: make
    for make in (
        some_numbers.petfinder,
        one_class.cassava,
        many_labels.plant_2020,
        many_labels.plant_2021,
        some_numbers.aptos,
        many_labels.ranzcr,
        one_class.paddy,
        one_class.dog_breed,
        two_classes.dogs_vs_cats,
        one_class.digit_recognizer,
        two_classes.siim,
        many_labels.grand_xray,
        two_classes.ai_vs_human,
        one_class.imagenette,
        one_class.imagewoof,
        some_numbers.csiro,
        some_numbers.planttraits,
        two_classes.aerial_cactus,
        two_classes.histopathologic,
        two_classes.statoil,
        containers.isic_2024,
        containers.fathomnet,
        containers.hms,
        individuals.happywhale,
        medical.tgs_salt,
        medical.rsna_2024,
        medical.rsna_2025,
        medical.rsna_knee,
    )
}
