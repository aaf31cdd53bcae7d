"""One child process: start it, watch it, stop it, start it again."""
