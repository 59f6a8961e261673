"""The stores of pictures: the contract in base.py, files in one folder, and Redis."""

from __future__ import annotations

from heroimg.config import Config, ConfigError
from heroimg.stores.base import Clock, ImageStore
from heroimg.stores.files.store import FileStore


def open_store(config: Config, clock: Clock) -> ImageStore:
    """Open the store that the settings name: Redis if REDIS_URL is set, else files.

    :raises ConfigError: the store cannot work with these settings.
    """
    if not config.redis_url:
        return FileStore(config, clock)
    try:
        from heroimg.stores.redis.store import RedisStore  # noqa: PLC0415 (redis-py is an extra)
    except ModuleNotFoundError as error:
        raise ConfigError(
            ["REDIS_URL is set and redis-py is not installed: pip install -r requirements-redis.txt, or unset it"]
        ) from error
    return RedisStore(config, clock)
