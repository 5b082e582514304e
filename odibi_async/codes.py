"""codes"""

CODES = {}
