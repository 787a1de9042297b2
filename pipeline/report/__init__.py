"""Report: what a run showed, in numbers, charts and one page."""
