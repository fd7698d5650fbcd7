"""HTML pages that ask for nothing: one template, one style, and figures with the page's colours.

`page.render` fills a template that extends `base.html`: heading, switch between light and dark, tables that are sorted
by a click (`<table class="sortable">`). Its Content-Security-Policy has the hashes of the page's one style and one
script and allows no others: colours and layout are classes in `base.css` and in the style files of the page.
"""
