"""The headless browser that looks at pages."""

import time

BROWSER = (
    "chromium",
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--hide-scrollbars --window-size=1280,900",
)
# Answers with an error to every name of another machine.
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
AXE = """
const done = arguments[arguments.length - 1];
axe.run(arguments[0]).then(found => done(found.violations));
"""


def emulate(browser, scheme, width=1280, height=900):
    """Let pages see a colour scheme, and a window of this size in pixels."""
    wanted = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wanted]})
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wait_for(browser, script, at_most_s=20):
    """Wait until an expression is true on the page."""
    deadline = time.monotonic() + at_most_s
    while not browser.execute_script(f"return {script}"):
        assert time.monotonic() < deadline, script
        time.sleep(0.05)
