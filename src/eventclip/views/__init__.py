"""From events to the views that CLIP looks at."""
