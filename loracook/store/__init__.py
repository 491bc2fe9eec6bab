"""What lies on disk: default folders, atomic writes, hashes, records, the lock, files to publish."""
