"""The list `rounds:` of a config."""

from swinft.run.rounds.settings import DropNoisy, read_rounds


def test_numbers_with_an_exponent_are_numbers_as_in_the_rest_of_a_config(tmp_path):
    file = tmp_path / "config.yaml"
    text = "rounds:\n- {name: a, set: {model.optim.args: {eps: 1e-6}, model.optim.name: '1e5'}}\n"
    file.write_text(text + "- {name: b, drop_noisy: {share: 2e-1}}\n")
    first, second = read_rounds(file)
    assert first.changes == {"model": {"optim": {"args": {"eps": 1e-6}, "name": "1e5"}}}
    assert second.drop_noisy == DropNoisy(share=0.2)
