"""R replicas of Byzantine distributed training as one batched program."""
