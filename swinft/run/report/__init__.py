"""A run's report as one HTML page, and the table of its largest errors.

The page is a list of sections. `contents.ReportInput` holds all that they are made from, read and joined once. A
section is a module in `sections` with a function `section(report: ReportInput) -> Section | None`, which returns None
where the run has nothing to show in it. `page.SECTIONS` lists these modules in the order of the page.

A `Section` has an id (its anchor), a title, a lead sentence, and a body: HTML that `section.render` makes of a
template, `sections/NAME.html`, which escapes every value. Templates import macros from `macros.html`, for tables
(`tables.Table`) and for rows of images; `report.thumbnails` decodes each image once. The page allows no inline styles
and no event handlers, as its Content-Security-Policy has the hashes of its one style and one script: colours and layout
are classes in `page.css`.
"""
