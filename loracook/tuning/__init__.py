"""The fastest settings of a recipe that fit this machine: tried in processes of their own, and kept."""
