"""The SFTTrainer of a recipe: built, checked against memory, watched and checkpointed."""
