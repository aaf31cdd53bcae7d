"""Report readiness, heartbeats and status by sd_notify(3), using only a socket."""

import os
import socket
import time


def notify(text: str) -> None:
    """Send *text* to the supervisor of this process."""
    address = os.environ["NOTIFY_SOCKET"]
    if address.startswith("@"):  # an abstract address: not a file
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), address)


def main() -> None:
    """Report the time as the status, forever."""
    notify("READY=1")
    while True:
        notify(f"WATCHDOG=1\nSTATUS=it is {time.strftime('%H:%M:%S')}")
        time.sleep(float(os.environ.get("CLOCK_INTERVAL", "1")))


if __name__ == "__main__":
    main()
