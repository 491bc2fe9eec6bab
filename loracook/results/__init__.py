"""What runs have left: found by what people call it, listed, compared and cleaned up."""
