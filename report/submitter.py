"""Who hands in: the name on the report's first page and, in ASCII letters, in the zip's name."""
SUBMITTER = 'Your Name'
