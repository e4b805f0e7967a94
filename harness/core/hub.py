"""Whether the Hugging Face Hub can be reached, found out once instead of by the minutes of retries of its libraries."""

from __future__ import annotations

import functools

_SECONDS = 10.0


@functools.cache
def only_cache_without_hub() -> None:
    """Where the Hub does not answer, lets its libraries take what is in their cache and ask nothing more in this
    process, as HF_HUB_OFFLINE does.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception as error:  # of the HTTP library: no name, no route, no answer in time, a proxy that refuses
        import datasets

        from harness.core.progress import say  # rich, which draws a random number where it is imported

        say(f"The Hub does not answer ({type(error).__name__}); only what is in its cache is used")
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
