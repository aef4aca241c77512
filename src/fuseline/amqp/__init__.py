"""RabbitMQ: names, messages and the link. The only home of pika and aio-pika."""
