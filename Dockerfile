# The image that every bottle runs. Built from an empty context: nothing of the host goes in.
FROM node:22-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates git git-lfs openssh-client socat \
        curl jq less ncurses-term procps ripgrep \
        g++ gcc make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

RUN npm install -g --no-fund --no-audit @anthropic-ai/claude-code@2.1.330

# node-gyp would fetch node's headers from a host that no bottle reaches.
ENV npm_config_nodedir=/usr/local

USER node
WORKDIR /home/node
RUN mkdir -p /home/node/.claude/skills
