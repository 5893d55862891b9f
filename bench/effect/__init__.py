"""The fault lab: what becomes of tasks under every fault between Plane and RabbitMQ, and what not losing them costs."""
