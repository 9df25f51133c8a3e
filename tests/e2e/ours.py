"""A script for mitmdump in tests: what our own loggers say, at any level, goes to the file $LLMTAB_TEST_LOG as well."""

import logging
import os

handler = logging.FileHandler(os.environ["LLMTAB_TEST_LOG"])
handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
for name in ("llmtab", "asyncio"):
    logging.getLogger(name).addHandler(handler)
    logging.getLogger(name).setLevel(logging.DEBUG)
