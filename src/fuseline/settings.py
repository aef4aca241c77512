"""Settings of the processes, from the environment (prefix `FUSELINE_`) or an environment file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are and how large they may get. Each field is `FUSELINE_<FIELD>` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="FUSELINE_", env_file=".env", extra="ignore", allow_inf_nan=False
    )

    amqp_url: str = Field(
        "amqp://guest:guest@127.0.0.1:5672/", description="RabbitMQ; several URLs with commas between"
    )
    database_url: str = Field(
        "sqlite:///fuseline.db", description="sqlite:///path or postgresql://user@host/database"
    )
    http_url: str | None = Field(
        None, description="A Fuseline HTTP service, for clients that have no RabbitMQ"
    )
    prefix: str = Field(
        "fuseline",
        min_length=1,
        max_length=40,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="What all AMQP names begin with",
    )
    queue_type: Literal["quorum", "classic"] = Field(
        "quorum", description="Of all queues; for good, as another one takes another prefix"
    )
    host: str = Field("127.0.0.1", description="Where the HTTP service listens")
    port: int = Field(8080, ge=0, le=65535, description="Its port; 0 is any that is free")

    lease_seconds: float = Field(60.0, gt=0, description="How long a holder of a step may be silent")
    heartbeat_seconds: float = Field(10.0, gt=0, description="How often a worker sends a heartbeat")
    claim_after_seconds: float = Field(
        10.0, ge=0, description="How long a worker holds a delivery before it takes a lease"
    )
    sweep_seconds: float = Field(
        120.0, gt=0, description="How long a step may be queued before its message is looked for"
    )
    max_losses: int = Field(
        5, ge=1, description="Workers that a step may take down before it fails as poison"
    )
    batch: int = Field(500, ge=1, le=10_000, description="Reports in one transaction")
    call_seconds: float = Field(30.0, gt=0, description="Deadline of a call over AMQP or HTTP")
    max_message_bytes: int = Field(
        8 * 1024 * 1024, ge=1024, description="Largest input, result or assignment"
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="How long a worker that is told to stop finishes what it has"
    )
    fusion_hops: int = Field(
        0, ge=0, description="Step fusion: steps of a chain that a worker goes on with in a row; 0 is off"
    )
    fusion_seconds: float = Field(
        1.0, ge=0, description="How long it may go on so before others get their turn"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged: this and what is worse"
    )
