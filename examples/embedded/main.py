"""Run workers inside a trio program for the duration of one block."""

import signal

import trio

from trio_supervisor import Application, Service, Worker, open_controller


async def work(worker: Worker) -> None:
    await worker.ready()
    while True:
        await trio.sleep(1)


application = Application(services=[Service("worker", work, count=2)])


async def main() -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_controller(application) as controller:
            with trio.fail_after(60):
                await controller.wait_ready()
            print("ready:", *(worker.name for worker in controller.workers), flush=True)

            await controller.restart("worker.0", reason="to show how")
            for worker in controller.workers:
                print(
                    f"{worker.name} was restarted {worker.restarts} times", flush=True
                )

            async for _ in signals:
                break
    print("nothing is left running", flush=True)


# Children import this file too and must not run the program again.
if __name__ == "__main__":
    trio.run(main)
