"""Drives emulated devices with aioshelly, the library Home Assistant speaks to real ones with.

What a client written against real devices accepts is the best proof of an emulator at hand. Each scenario is a
device of its own; the first that fails ends the run with its reason and exit code 1. Started by
scripts/check-aioshelly.sh, which brings the library; arguments: the two example programs, lan and outbound.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aioshelly.common import ConnectionOptions, get_info
from aioshelly.exceptions import InvalidAuthError
from aioshelly.rpc_device import RpcDevice, RpcUpdateType, WsServer

PATIENCE_SECONDS = 20
PASSWORD = "s3cret"


def need(condition: object, reason: str) -> None:
    if not condition:
        raise AssertionError(reason)


@asynccontextmanager
async def program(*command: str):
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
        need(process.returncode == 0, f"{command[0]} ended with {process.returncode}")


@asynccontextmanager
async def lan_device(lan: str, model: str, *more: str):
    async with program(lan, "--models", model, *more) as process:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
        described = json.loads(line)
        described["ip"], port = described["address"].rsplit(":", 1)
        described["port"] = int(port)
        yield described


class Updates:
    """Keeps what a device was told to us about, and waits for more."""

    def __init__(self) -> None:
        self.seen: list[RpcUpdateType] = []
        self.changed = asyncio.Event()

    def __call__(self, _device: RpcDevice, update: RpcUpdateType) -> None:
        self.seen.append(update)
        self.changed.set()

    async def until(self, condition, what: str) -> None:
        async def wait() -> None:
            while not condition():
                self.changed.clear()
                await self.changed.wait()

        try:
            await asyncio.wait_for(wait(), PATIENCE_SECONDS)
        except TimeoutError:
            raise AssertionError(f"never seen: {what}; updates: {self.seen}") from None


async def open_device(session: aiohttp.ClientSession, described: dict[str, Any], password: str | None):
    login = {"username": "admin", "password": password} if password else {}
    options = ConnectionOptions(ip_address=described["ip"], port=described["port"], **login)
    device = await RpcDevice.create(session, None, options)
    updates = Updates()
    device.subscribe_updates(updates)
    await device.initialize()
    return device, updates


async def exercise(
    lan: str, model: str, switch: int | None, *, password: str | None = None, firmware: str | None = None
) -> None:
    more = ["--password", password] if password else []
    more += ["--firmware", firmware] if firmware else []
    async with aiohttp.ClientSession() as session, lan_device(lan, model, *more) as described:
        info = await get_info(session, described["ip"], port=described["port"])
        need(info["id"] == described["id"], f"/shelly says {info['id']}")
        need(info["auth_en"] is bool(password), "auth_en is wrong")
        device, updates = await open_device(session, described, password)
        try:
            need(device.initialized and device.firmware_supported, "firmware is not accepted")
            need(device.shelly["mac"] == info["mac"], "the MAC differs")
            need(device.status["sys"]["mac"] == info["mac"], "the MAC in the status differs")
            need(device.requires_auth is bool(password), "requires_auth is wrong")
            need("Shelly.GetStatus" in await device.methods_list(), "methods are not listed")
            need(isinstance(await device.script_list(), list), "scripts are not listed")
            await device.poll()
            await device.update_status()
            if switch is not None:
                await use_switch(device, updates, switch)
            # Signed calls one after the other and all at once: counts must not run into each other.
            for _ in range(5):
                await device.update_config()
            await asyncio.gather(*(device.call_rpc("Sys.GetStatus") for _ in range(10)))
        finally:
            await device.shutdown()
        if password:
            try:
                await open_device(session, described, "wrong")
            except InvalidAuthError:
                pass
            else:
                raise AssertionError("a wrong password was accepted")


async def use_switch(device: RpcDevice, updates: Updates, switch: int) -> None:
    key = f"switch:{switch}"
    for on in (False, True, False):
        updates.seen.clear()
        before = device.status[key]["output"]
        await device.switch_set(switch, on)
        await updates.until(lambda: device.status[key]["output"] is on, f"{key} {on}")
        if before is not on:
            await updates.until(lambda: RpcUpdateType.STATUS in updates.seen, "NotifyStatus")
            need(device.status[key]["source"] == "WS_in", f"source {device.status[key]['source']}")


async def dial_in(outbound: str, model: str) -> None:
    """A device dials aioshelly's own server, is recognised by its MAC, and reports."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = WsServer()
    await server.initialize(port)
    try:
        async with aiohttp.ClientSession() as session, program(
            outbound, f"ws://127.0.0.1:{port}/api/shelly/ws", "1", model
        ) as process:
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
            mac = line.decode().strip().rsplit("-", 1)[1].upper()
            options = ConnectionOptions(ip_address="127.0.0.1", port=9, device_mac=mac)
            device = await RpcDevice.create(session, server, options)
            updates = Updates()
            device.subscribe_updates(updates)
            await updates.until(lambda: RpcUpdateType.ONLINE in updates.seen, "the device coming online")
            await device.shutdown()
    finally:
        server.close()


async def main(lan: str, outbound: str) -> None:
    scenarios = {
        "a plug without a password": lambda: exercise(lan, "plugsg3", 0),
        "a plug with a password, firmware 1.x": lambda: exercise(lan, "plugsg3", 0, password=PASSWORD),
        "a plug with a password, firmware 2.x": lambda: exercise(
            lan, "plugsg3", 0, password=PASSWORD, firmware="2.0.0"
        ),
        "a Plus plug of firmware 1.1": lambda: exercise(lan, "plusplugs-fw1.1", 0),
        "a strip of four outlets": lambda: exercise(lan, "pstripg4", 3),
        "a meter without an output": lambda: exercise(lan, "pmminig3", None),
        "a relay with four channels": lambda: exercise(lan, "pro4pm", 2, password=PASSWORD),
        "a cover": lambda: exercise(lan, "plus2pm-cover", None),
        "a relay with 18 dynamic components": lambda: exercise(lan, "mini1g3", 0),
        "a Wall Display with a password": lambda: exercise(lan, "walldisplay", 0, password=PASSWORD),
        "a plug that dials aioshelly's server": lambda: dial_in(outbound, "plugsg3"),
    }
    passed = 0
    for name, scenario in scenarios.items():
        try:
            await asyncio.wait_for(scenario(), 4 * PATIENCE_SECONDS)
        except Exception as error:
            print(f"FAILED {name}: {error!r}", flush=True)
            print(f"{passed} passed, 1 failed")
            raise SystemExit(1) from error
        passed += 1
        print(f"ok     {name}", flush=True)
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: aioshelly_check.py LAN_PROGRAM OUTBOUND_PROGRAM")
    asyncio.run(main(sys.argv[1], sys.argv[2]))
