"""The boards' one door: device jobs from the stack's queues, served over HTTPS to boards that hold a token each."""
