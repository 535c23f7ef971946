"""What has happened since the server started, counted: a fold of the journal that keeps numbers where the rings forget.

It is told of each record as it is written, so that no scrape can come too late. A kind that has no rule costs one look into a
dictionary; a warm request adds one to one number.
"""

from vllama.actors.tally.histogram import Histogram
from vllama.actors.tally.numbers import Numbers, Rise
from vllama.actors.tally.tally import Tally

__all__ = ["Histogram", "Numbers", "Rise", "Tally"]
