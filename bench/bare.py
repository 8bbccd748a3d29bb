"""The gateway without a policy: it finds the service and forwards. No mode of the product, a measure of its frame.

`python -m bench.bare DATA_DIR PORT` serves the snapshot in DATA_DIR until it is ended. A call needs a key only
to find its way; nothing is limited and nothing is recorded. What HTTP demands stays as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

from bench.processes import LOOPBACK
from haat.gateway import admission
from haat.gateway.call import Call
from haat.gateway.gateway import Gateway
from haat.gateway.market import snapshot_file
from haat.gateway.market.snapshot import Directory
from haat.gateway.stages import check_body
from haat.infra.keyring import keyring_of
from haat.settings import Settings, load_settings
from haat.usage.journal import JournalWriter


async def serve(settings: Settings) -> None:
    keyring = keyring_of(settings)
    directory = Directory(snapshot_file.load(settings.data_dir / "gateway" / "snapshot.bin", keyring))
    journal = JournalWriter(settings.data_dir / "journal", "gateway-0", settings.journal_segment_bytes, 200)
    gateway = Gateway(settings, keyring, journal, directory)
    # No seam of the product: that nothing is limited or recorded is the whole point of this row.
    admission.ADMIT = (check_body, forget_caller)  # type: ignore[attr-defined]
    await gateway.listen(LOOPBACK, settings.gateway_port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await gateway.stop(1)


def forget_caller(gateway: Gateway, call: Call) -> None:
    """Make the call nobody's: what nobody did is not recorded."""
    call.credential = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    uvloop.run(serve(load_settings(data_dir=options.data_dir, gateway_port=options.port)))


if __name__ == "__main__":
    main()
