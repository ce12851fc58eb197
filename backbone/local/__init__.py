"""The embedded stack: Kafka, Valkey, outside servers and all services as processes of this machine."""
