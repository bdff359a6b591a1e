"""Where a page of a listing begins. Used by the platform's own listings and by those of containers. Pure.

The JuiceFS gateway reads the whole folder for each page, and keeps the rest for half an hour, for the next page that
begins exactly where that one has ended. It does not look who asks for it: a listing would get the rest of another one
that was abandoned there, without what was written since. So a page begins right behind that place, which reads the
folder again. Who reads all pages goes on with the rest of their own listing for a while, which costs a tenth for large
folders; their pages have fewer keys than they may, so that they end where those of others seldom do.
"""

from __future__ import annotations

from typing import Final

#: Seconds for which a listing goes on with what it found when it began.
GOES_ON: Final = 60.0
MOST: Final = 1000  # keys of a page, as S3 allows
FEWER: Final = 400  # a page of a listing that goes on has fewer keys than that, by less than so many
#: Sorts after every key below a folder: after a folder, servers would otherwise continue with its content.
_BEHIND_FOLDER: Final = "\U0010ffff"
#: Sorts before every key that may follow another one.
_BEHIND_OBJECT: Final = "\x01"


def begin_behind(place: str, prefix: str, folders: bool, goes_on: bool = False) -> str:
    """Return a text that sorts behind the object `place`, or behind all of a folder that was listed as one, which
    `folders` allows. The prefix itself is none: a listing that begins there has all that follows. A listing that
    `goes_on` begins exactly where its page has ended."""
    if not place:
        return place
    if folders and place.endswith("/") and place != prefix:
        return place + _BEHIND_FOLDER
    return place if goes_on else place + _BEHIND_OBJECT
