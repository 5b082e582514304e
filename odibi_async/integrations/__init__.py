"""Bridges to other libraries; each file is loaded only by those who use that library."""
