"""What a person looks at after a training: plots for a folder, and one page that holds everything.

`plots` draws the images of the run folder, `page` the report; `charts` and `images` make what the page shows.
"""
