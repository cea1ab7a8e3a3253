"""How much damage can Byzantine workers do to distributed training, under each defence?"""
