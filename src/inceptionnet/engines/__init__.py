"""Fast inference engines, and exported files with verified outputs."""
