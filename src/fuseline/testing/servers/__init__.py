"""Real RabbitMQ and PostgreSQL servers for tests and demonstrations, started and thrown away by the process itself.

`PrivateRabbitMQ` and `PrivatePostgres` start the installed binaries on free loopback ports with their data in a
temporary folder. They can be killed and come back with the same address and the same data. `find_rabbitmq` and
`find_postgres` take the first server that can be had: an address in the environment, a private server, a container.

    with PrivateRabbitMQ() as rabbitmq:
        broker = AmqpBroker(rabbitmq.url)
        ...
        rabbitmq.kill()
        rabbitmq.start()
"""

from fuseline.testing.servers.administration import Alarm, ConnectionStatus, QueueStatus
from fuseline.testing.servers.base import PrivateServer, ServerUnavailable
from fuseline.testing.servers.cluster import PrivateRabbitMQCluster
from fuseline.testing.servers.find import (
    AMQP_URL_VARIABLE,
    POSTGRES_URL_VARIABLE,
    RABBITMQ_ROOT_VARIABLE,
    find_postgres,
    find_rabbitmq,
)
from fuseline.testing.servers.installation import Installation
from fuseline.testing.servers.postgres import PrivatePostgres
from fuseline.testing.servers.rabbitmq import PrivateRabbitMQ

__all__ = [
    "AMQP_URL_VARIABLE",
    "POSTGRES_URL_VARIABLE",
    "RABBITMQ_ROOT_VARIABLE",
    "Alarm",
    "ConnectionStatus",
    "Installation",
    "PrivatePostgres",
    "PrivateRabbitMQ",
    "PrivateRabbitMQCluster",
    "PrivateServer",
    "QueueStatus",
    "ServerUnavailable",
    "find_postgres",
    "find_rabbitmq",
]
