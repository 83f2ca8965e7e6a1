"""What runs left behind, put side by side: no torch, no Lightning."""
