"""The supervisor process: knows all workers, monitors them and answers clients."""
