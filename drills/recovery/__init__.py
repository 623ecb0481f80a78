"""What becomes of a running task when its worker is killed or told to stop: Sojourn beside other task queues."""
