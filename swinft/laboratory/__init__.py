"""The laboratory: instruments that measure trained networks, each with a CSV and a page.

The function is `swinft.lab`, and the package is not called `lab`: an attribute `swinft.lab` cannot be both.

An instrument is a module with one class derived from `instrument.Instrument`, a dataclass with its options in
`options`, and a line in `table.INSTRUMENTS`. Its class says what it takes (runs, timm's networks, configs), names the
steps of a subject in their order, and measures one step at a time: a pure function of the subject and the name of the
step, which returns lines of the CSV. A step is committed when it is measured, so that a command that was killed
continues after the last one, with the same bytes. `summarize` makes a few numbers of one subject's lines (`--json`),
`figures` draws all subjects of a page beside one another, `notes` says in sentences what was found.

A `subjects.RunSubject` has the network of one fold, its held-out rows as batches in memory, their targets, the run's
metrics, and the run's experiment, datamodule and folder. Random numbers are drawn by `options.LabOptions.seed` and the
name of what they are for, never by the position of a step.
"""
