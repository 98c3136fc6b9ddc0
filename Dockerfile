# An image with a program that has been built: docs/install.md.
FROM scratch
COPY sspolicy /sspolicy
USER 65532:65532
WORKDIR /work
ENTRYPOINT ["/sspolicy"]
CMD ["--help"]
