import sys

from drpo.errors import DrpoError

try:
    from drpo.integrations.skyrl.entry import main

    main()
except DrpoError as error:
    sys.exit(f"error: {error}")
