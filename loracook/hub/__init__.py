"""The Hugging Face hub: pushing from a process of its own, and what its errors mean."""
