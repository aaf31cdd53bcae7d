"""A program that knows nothing of trio_supervisor, and speaks sd_notify(3)."""

import os
import socket
import time


def notify(text: str) -> None:
    """Say *text* to whoever supervises this process."""
    address = os.environ["NOTIFY_SOCKET"]
    if address.startswith("@"):  # an abstract one: no file
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), address)


def main() -> None:
    """Tell the time, for ever."""
    notify("READY=1")
    while True:
        notify(f"WATCHDOG=1\nSTATUS=it is {time.strftime('%H:%M:%S')}")
        time.sleep(float(os.environ.get("CLOCK_INTERVAL", "1")))


if __name__ == "__main__":
    main()
