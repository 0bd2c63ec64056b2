# The image that every bottle runs. Built from an empty context: nothing of the host goes in.
FROM node:22-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends git ca-certificates socat openssh-client \
    && rm -rf /var/lib/apt/lists/*

RUN npm install -g --no-fund --no-audit @anthropic-ai/claude-code@2.1.330

USER node
WORKDIR /home/node
RUN mkdir -p /home/node/.claude/skills
