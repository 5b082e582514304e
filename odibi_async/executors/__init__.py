"""Where calls run: this loop's threads here; further places come as files of their own."""
