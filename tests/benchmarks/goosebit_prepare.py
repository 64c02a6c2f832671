"""Makes a goosebit installation ready to be measured; run by the Python of goosebit's own environment.

``python goosebit_prepare.py DEVICES [rollout]`` in an environment with ``GOOSEBIT_DB_URI``: its schema, so many devices
that are registered, each with its token, and, when asked for, a rollout that all of them are part of. ``python
goosebit_prepare.py count`` prints the rollout's counter of successes.
"""

import asyncio
import sys

from goosebit.db.config import TORTOISE_CONF
from goosebit.db.models import Device, Hardware, Rollout, Software, UpdateStateEnum
from tortoise import Tortoise


async def prepare(devices: int, *, rollout: bool) -> None:
    await Tortoise.generate_schemas(safe=True)
    hardware = (await Hardware.get_or_create(model="default", revision="default"))[0]
    if rollout:
        software = await Software.create(uri="file:///nowhere/app.swu", size=1000, hash="0" * 40, version="2.0.0")
        await software.compatibility.add(hardware)
        await Rollout.create(name="r", feed="default", software=software)
    await Device.bulk_create(
        Device(id=f"dev-{n:07}", hardware=hardware, last_state=UpdateStateEnum.REGISTERED, auth_token=f"token-{n}")
        for n in range(devices)
    )


async def main(asked: list[str]) -> None:
    await Tortoise.init(config=TORTOISE_CONF)
    if asked == ["count"]:
        rollout = await Rollout.first()
        print(rollout.success_count)
    else:
        await prepare(int(asked[0]), rollout="rollout" in asked)
    await Tortoise.close_connections()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
