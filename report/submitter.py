"""Who hands in: the name on the report's first page and in the zip's file name."""
SUBMITTER = 'Your Name'
