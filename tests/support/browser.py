"""The headless browser that looks at pages."""

BROWSER = (
    "chromium",
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--hide-scrollbars --window-size=1280,900",
)
