"""CLIP, its adapters and the classifier made of them; usable without Lightning."""
