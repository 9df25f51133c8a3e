"""One program behind a proxy: its variables, the private proxy, the bill at the end."""
