"""The whole system as its customers meet it: real Kafka, real Valkey, real processes, and what happens when they die."""
