"""What lies on disk: whole files, hashes, records, the lock, and what is sent out."""
