"""What a prediction is said to take, by a clock that only the work moves."""

import pytest
import torch
from torch.utils.data import DataLoader

from swinft.inference import predictor as inference
from swinft.inference.predictor import estimate, seconds_per_image
from swinft.printing import format_seconds

SECONDS_PER_IMAGE, SECONDS_TO_DECODE = 2.0, 0.5


class Clock:
    """Stands still until told to move."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize("workers", [0, 1])
def test_it_counts_rows_networks_views_and_decoding(workers, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(inference, "time", clock)

    threads = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)

    class Rows(torch.utils.data.Dataset):
        decoded = 0

        def __len__(self):
            return 1000  # of the table; this process has a share

        def __getitem__(self, row):
            self.decoded += 1
            clock.now += SECONDS_TO_DECODE * (10 if self.decoded == 1 else 1)  # memory and code
            return {"image": torch.zeros(3, 2, 2, dtype=torch.uint8), "row": row}

    class Net:
        forwards = 0

        def predict(self, image, features=None):
            self.forwards += 1
            clock.now += SECONDS_PER_IMAGE * len(image) * (10 if self.forwards == 1 else 1)  # memory and kernels
            return torch.zeros(len(image), 1)

    loader = DataLoader(Rows(), batch_size=4, sampler=range(10), num_workers=workers)
    seconds = estimate([Net()] * 3, loader, ["identity", "hflip"], torch.device("cpu"), "32-true")
    assert seconds == pytest.approx(10 * (3 * 2 * SECONDS_PER_IMAGE + SECONDS_TO_DECODE))
    assert threads == [1 if workers else 2, 2]  # a loader process has one thread; the network gets its own back


@pytest.mark.parametrize(
    ("forward", "decoding", "workers", "device", "expected"),
    [
        (1.0, 0.5, 0, "cuda", 1.5),  # one after the other
        (1.0, 0.5, 2, "cuda", 1.0),  # beside it
        (1.0, 8.0, 2, "cuda", 4.0),  # the network waits for images
        (1.0, 8.0, 2, "cpu", 9.0),  # on the same cores
    ],
)
def test_decoding_beside_the_network(forward, decoding, workers, device, expected):
    assert seconds_per_image(forward, decoding, workers, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "under 1 s"), (44.6, "45 s"), (95, "2 min"), (12_000, "3 h 20 min")]
)
def test_durations_in_words(seconds, words):
    assert format_seconds(seconds) == words
