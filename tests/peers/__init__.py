"""What our patches do to Celery, kombu and py-amqp by their own unit tests' judgement: `python -m tests.peers`."""
